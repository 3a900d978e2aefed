import subprocess
import sys

import pytest

resource = pytest.importorskip("resource", reason="the system has no limit of open files")

TELL = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, {before})
from lipwire.cli.servers.openfiles import file_limit, raise_file_limit
raise_file_limit()
print(*resource.getrlimit(resource.RLIMIT_NOFILE), file_limit())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have a lower limit besides")
@pytest.mark.parametrize("before", [(256, 600), (600, 600)])
def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be(before: tuple[int, int]) -> None:
    said = subprocess.check_output([sys.executable, "-c", TELL.format(before=before)], text=True)
    assert said.split() == ["600", "600", "600"]
