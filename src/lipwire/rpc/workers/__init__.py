"""One server in several processes: what is asked of one is asked of all, and answered for all.

Processes that share a port take connections in turns that the kernel chooses, so a call reaches one
of them. For a batch that is all it needs. Calls that look after avatars are about the server:

    client ──▶ the port ──▶ any process ──▶ its own part ─────────────┐
                                  └──▶ the others' sockets, at once ──┴──▶ one answer for all

Each process serves its own part on a Unix socket besides the port (``WorkerPlace``), in a folder
that nobody but the server's user can enter. On the sockets nothing is passed on, so a call cannot
go round. Who is not there (it died and is being started again) holds nothing, and is named in the
answer.

A live session is in one process, and its id names that process. Calls about it are passed on there
by the same sockets (``OwnerInterceptor``), whatever process the connection leads to.
"""

from lipwire.rpc.workers.owners import OwnerInterceptor
from lipwire.rpc.workers.place import WorkerPlace, socket_folder
from lipwire.rpc.workers.sharing import SharingInterceptor
from lipwire.rpc.workers.siblings import Siblings

__all__ = ["OwnerInterceptor", "SharingInterceptor", "Siblings", "WorkerPlace", "socket_folder"]
