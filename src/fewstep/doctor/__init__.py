"""What a network is consistent with, and the file that says otherwise."""

from fewstep.doctor.diagnosis import OWN, Claim, Diagnosis, Finding, diagnose, readings
from fewstep.doctor.host import hosted
from fewstep.doctor.scheduler import SchedulerFile, scheduler_file

__all__ = [
    "OWN",
    "Claim",
    "Diagnosis",
    "Finding",
    "SchedulerFile",
    "diagnose",
    "hosted",
    "readings",
    "scheduler_file",
]
