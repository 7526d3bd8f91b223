"""Pictures that teach: what samplers do on data whose score is known. The numbers here, their drawing in `draw`."""
