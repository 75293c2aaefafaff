"""The report: run folders in (`collect`), tables (`layouts`, `tables`) and verdicts (`verdicts`) out, as files (`writing`)."""
