"""An ensemble of runs: one prediction of each row from those of several members, with an honest score."""
