"""The processes that load data: a SIGTERM to a whole job leaves them to the run that still needs them."""

import signal

SECONDS_TO_LIVE = 60


def outlive_sigterm(worker_id: int) -> None:
    """Put off a worker's end, so that the step or evaluation that waits for its batches can finish.

    Schedulers signal every process of a job; a worker that dies takes the run with it before it can save.

    Args:
        worker_id: of a DataLoader, which calls this in the new process.
    """
    # torch's handler exits at once; the alarm ends a worker that hangs when the run has no more use for it
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(SECONDS_TO_LIVE))
