"""fewstep inside other people's programs: each module adapts plans to one host."""
