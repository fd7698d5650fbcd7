"""`swinft submit`: turn predictions into a `submission.csv` that Kaggle accepts, and send it."""

from swinft.json_output import Output
from swinft.kaggle.upload import UploadOptions, upload_submission
from swinft.run.config.parser import call
from swinft.run.layout import Run
from swinft.run.submission.options import SubmitOptions
from swinft.run.submission.submit import print_upload
from swinft.run.submission.submit import submit as submit_run


def submit(run: str, options: SubmitOptions, upload: UploadOptions) -> Output:
    """Writes and checks a submission, and with --message submits it to Kaggle.

    Options default to the run's `submission` section.

    Args:
        run: The run folder.
        options: What to submit, and in which format.
        upload: What to tell Kaggle.
    """
    opened = Run.open(run)
    if not upload.is_asked_for:
        made = submit_run(opened, options)
        print_upload(opened, made.path)
        return {**made.output, "sent": None}
    checked = upload.check(opened)
    written = None if checked.kernel else submit_run(opened, options)
    sent = upload_submission(opened, written.text.encode() if written else b"", checked, options.dry_run)
    return {**(written.output if written else {}), "sent": sent}


def main(argv: list[str]) -> Output:
    """`swinft submit RUN`."""
    return call(submit, "submit", argv, SubmitOptions, UploadOptions)
