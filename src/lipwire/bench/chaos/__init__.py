"""Servers under load while inference servers are killed, calls cancelled, avatars unloaded and
replaced: every frame is looked at, and so is what the processes hold.

``cast`` makes avatars and what their frames have to be; ``servers`` runs the processes; ``clients``
ask and compare, and ``live`` and ``comparison`` do so in live sessions; ``troubles`` are what
happens to the servers meanwhile; ``watch`` looks for growth; ``run`` puts them together.
"""

from lipwire.bench.chaos.run import Chaos, Plan, run_chaos

__all__ = ["Chaos", "Plan", "run_chaos"]
