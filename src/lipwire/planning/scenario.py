"""What is simulated, and what is counted meanwhile."""

from dataclasses import dataclass, field

from lipwire.domain import InvalidInput, percentile
from lipwire.planning.autoscaling import ScalingRules
from lipwire.planning.server import ServerSettings


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated: ``servers`` servers, all like ``server``, with ``avatars`` avatars in all.
    How often each avatar is asked for follows Zipf's law with ``exponent`` (``Zipf``).

    ``talking`` people would be in live sessions at once in the mean, if none were refused; a
    session lasts ``talk_s`` seconds in the mean, exponentially distributed. With ``frames`` each
    session asks for its mouths; else only its lease (the share of a server's time that it reserves)
    and its avatar are simulated. Besides, ``batches_a_second`` requests come for ``batch_frames``
    mouths each, to be there within ``batch_deadline_s`` seconds. Sessions and requests come
    independently of each other (Poisson).

    The first ``warm_up_s`` seconds are not counted, the ``measured_s`` seconds after them are. From
    ``surge_s`` seconds after the beginning of what is counted, ``surge`` times as many people come.
    ``scaling`` says how servers are added; None where they are not. ``seed`` makes the random
    numbers. ``naming`` is the number of a set of names for the servers, which decide which server
    has which avatars (None: ``seed``). Raises InvalidInput for numbers out of range.
    """

    server: ServerSettings
    servers: int
    avatars: int
    exponent: float = 0.8
    talking: float = 0.0
    talk_s: float = 60.0
    frames: bool = False
    batches_a_second: float = 0.0
    batch_frames: int = 24
    batch_deadline_s: float = 10.0
    warm_up_s: float = 300.0
    measured_s: float = 600.0
    surge: float = 1.0
    surge_s: float = 0.0
    scaling: ScalingRules | None = None
    seed: int = 1
    naming: int | None = None

    def __post_init__(self) -> None:
        for label, number, least in (
            ("servers", self.servers, 1),
            ("avatars", self.avatars, 1),
            ("exponent", self.exponent, 0),
            ("batch_frames", self.batch_frames, 1),
            ("talking", self.talking, 0),
            ("batches_a_second", self.batches_a_second, 0),
            ("warm_up_s", self.warm_up_s, 0),
            ("surge", self.surge, 0),
            ("surge_s", self.surge_s, 0),
        ):
            if not number >= least:
                raise InvalidInput(f"{label} is {number:g}; allowed are {least} and above")
        for label, seconds in (
            ("talk_s", self.talk_s),
            ("batch_deadline_s", self.batch_deadline_s),
            ("measured_s", self.measured_s),
        ):
            if not seconds > 0:
                raise InvalidInput(f"{label} is {seconds:g}; allowed is what is above 0")


@dataclass(slots=True)
class Window:
    """What happened in ten seconds, from ``from_s`` seconds after the beginning of what is
    measured: how many people ``came``, and how many of them were ``refused``; how many were
    ``talking`` and how many ``servers`` served at the end of the ten seconds."""

    from_s: float
    came: int = 0
    refused: int = 0
    talking: int = 0
    servers: int = 0


@dataclass(slots=True)
class Outcome:
    """What a simulation has counted in the time that is measured, ``seconds``.

    ``sessions`` is how many live sessions were asked for; ``refused`` of them found no share of a
    server's time free, and ``refused_memory`` no room for their avatar. ``ended`` is how many
    ended, and ``moved`` how many times one went on at another server. ``talking`` is how many ran
    at once in the mean, and ``talked_s`` how many seconds one that ended had lasted in the mean.
    ``utilisation`` is the share of the workers' time that was given to sessions or spent in runs.

    ``batches`` is how many other requests for mouths came; ``refused_batches`` of them were refused
    by all servers that were asked or could not meet their deadline. ``waits_s`` is how many seconds
    each of the others waited for its first run, and ``took_s`` how many until its last mouth.
    Sessions made ``live_requests`` requests for mouths, of which ``live_refused`` were refused or
    came too late.

    ``hits`` and ``misses`` count uses of avatars that were in memory and that were not,
    ``evictions`` avatars removed to make room. ``events`` is how many steps were simulated, warm-up
    included; ``servers`` is how many served at the end; ``windows`` are ten seconds each, in order.
    """

    seconds: float
    sessions: int = 0
    refused: int = 0
    refused_memory: int = 0
    moved: int = 0
    """Sessions that went on at another server."""
    ended: int = 0
    talking: float = 0.0
    talked_s: float = 0.0
    utilisation: float = 0.0
    batches: int = 0
    refused_batches: int = 0
    waits_s: list[float] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    """From a batch's request to its last mouth."""
    live_requests: int = 0
    live_refused: int = 0
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    events: int = 0
    servers: int = 0
    """That served at the end."""
    windows: list[Window] = field(default_factory=list)

    @property
    def refused_share(self) -> float:
        """Share of ``sessions`` that were refused, 0 to 1, for want of a server's time or of
        memory; 0 where there were no sessions."""
        return (self.refused + self.refused_memory) / max(1, self.sessions)

    @property
    def hit_rate(self) -> float:
        """Share of the uses of avatars, 0 to 1, that found the avatar in memory; 0 where there were
        no uses."""
        return self.hits / max(1, self.hits + self.misses)

    def wait_s(self, percent: int) -> float:
        """Return the percentile ``percent`` (0 to 100) of ``waits_s``: within how many seconds that
        percentage of the batches began to run; 0 where there were no batches."""
        return percentile(self.waits_s, percent) if self.waits_s else 0.0
