"""What is checked at Kaggle before a submission is sent: rules, deadline, form, and how many are left today."""

from datetime import UTC, datetime, timedelta

from swinft.errors import InputError, command
from swinft.kaggle.answers import Competition, Limits
from swinft.kaggle.client import Client
from swinft.kaggle.failures import NotFound, rules_not_accepted
from swinft.kaggle.slugs import kernel_name, page
from swinft.printing import format_seconds, print_line
from swinft.run.layout import Run


def check_competition(client: Client, slug: str, kernel: str, run: Run) -> Competition:
    """Checks that the competition takes this submission, and prints what it is.

    Args:
        client: The connection.
        slug: The competition.
        kernel: `owner/notebook` of a notebook's submission; empty for a file.
        run: The run.

    Raises:
        InputError: The rules are not accepted, it takes no submissions, or only those of notebooks.
    """
    found = client.competition(slug)
    metric = f", {found.metric}" if found.metric else ""
    print_line(f"Kaggle: {found.title} ({slug}){metric}; {_deadline(found)}")
    if not found.entered:
        raise InputError(rules_not_accepted(slug))
    if found.is_closed:
        raise InputError(f"{slug} takes no submissions ({_deadline(found)}); see {page(slug)}. Nothing was sent.")
    if found.is_code and not kernel:
        bundle = command("bundle", run.root, "--competition", slug)
        again = command("submit", run.root, "--competition", slug, "--message", "TEXT")
        raise InputError(
            f"{slug} takes only notebooks that write the file, so that none can be uploaded. Make what the notebook "
            f"needs with `{bundle}`, run it on Kaggle with the competition's data, and submit its version: {again} "
            f"--kernel OWNER/NOTEBOOK --kernel-version N."
        )
    if found.is_over:
        print_line("  note: a submission after the deadline is scored, and not ranked")
    return found


def check_kernel(client: Client, name: str, version: int) -> None:
    """Checks that a version of a notebook has run to its end.

    Raises:
        InputError: There is no such notebook, it is still running, or it has failed.
    """
    owner, slug = kernel_name(name)
    shown = f"version {version} of {owner}/{slug}"
    try:
        status, reason = client.kernel_status(f"{owner}/{slug}/{version}")
    except NotFound as error:
        raise InputError(f"there is no {shown}: {error}") from error
    if status == "complete":
        return
    if status in ("queued", "running", "new_script"):
        raise InputError(f"{shown} is {status.replace('_', ' ')}. Submit it when its run has ended. Nothing was sent.")
    raise InputError(f"{shown} has no output to submit: its run ended with {status}{f' ({reason})' if reason else ''}.")


def check_limits(client: Client, contest: Competition) -> None:
    """Prints how many submissions are left, and when the count starts again.

    Raises:
        InputError: None is left.
    """
    limits = client.limits(contest.slug)
    if not limits.is_known:  # before the first submission
        print_line(f"  the first submission; {contest.max_daily or 'an unknown number'} per day")
        return
    if limits.left < 1:
        raise InputError(f"{_none_left(contest, limits)} Nothing was sent.")
    print_line(f"  {limits.left} of {contest.max_daily} submissions left today; the count starts again {_midnight()}")


def _none_left(contest: Competition, limits: Limits) -> str:
    if limits.is_total_reached:
        return f"your team has used all submissions that {contest.slug} allows in total ({limits.total})."
    return (
        f"your team has used its {limits.today} submissions to {contest.slug} of today. The count starts again "
        f"{_midnight()}."
    )


def _midnight() -> str:
    """`at 00:00 UTC, in 3 h 20 min`."""
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return f"at 00:00 UTC, in {format_seconds((midnight - now).total_seconds())}"


def _deadline(contest: Competition) -> str:
    """`deadline 2026-12-07 23:59 UTC, in 10 days`."""
    if contest.deadline is None:
        return "no deadline"
    date = contest.deadline.strftime("%Y-%m-%d %H:%M UTC")
    seconds = (contest.deadline - datetime.now(UTC)).total_seconds()
    if seconds < 0:
        return f"its deadline has passed: {date}"
    return f"deadline {date}, in {f'{seconds / 86400:.0f} days' if seconds > 172800 else format_seconds(seconds)}"
