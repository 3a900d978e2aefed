"""Forgetting a person: what a folder of renders has of an avatar, also while no server runs."""

from contextlib import ExitStack
from pathlib import Path

from lipwire.domain.names import canonical_name
from lipwire.renders.database import Database
from lipwire.renders.files import RenderFiles
from lipwire.renders.joblist import Held, JobList


def forget_avatar(folder: Path, avatar: str, *, dry_run: bool = False) -> Held:
    """Remove the renders of the avatar named ``avatar`` in ``folder`` (a server's folder of
    renders) with their recordings and videos, whether they wait, are being made or have ended.
    Return how many there were and how many bytes their files take. With ``dry_run``, nothing is
    removed. Servers that use the folder stop making these videos within a second, and remove them
    from the cache that they share with other servers. Raises StorageFailed where the folder cannot
    be used."""
    name = canonical_name(avatar)
    with ExitStack() as stack:
        files = stack.enter_context(RenderFiles(folder))
        jobs = JobList(stack.enter_context(Database(files.database)), max_queued=1)
        held = jobs.held(name)
        if not dry_run:
            for job_id in jobs.remove_all(avatar=name):
                files.forget_input(job_id)
            jobs.collect(files.remove_video)
        return held
