"""The avatars of two tenants, and every frame that they have to show."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lipwire.bench.chaos.cast import Role, check_distinct, make_look, make_speech, windows_of
from lipwire.domain import Float32Array

TENANTS: Final = ("north", "south")
_AVATARS: Final = 2
_SPEECHES: Final = 2
_SPEECH_S: Final = 1


@dataclass(frozen=True, slots=True)
class Cast:
    """Which avatars each of ``tenants`` has, that all say ``speeches``, (n,) float32 at 16 kHz.
    ``cold`` are further ones, that nobody has asked for until something happens."""

    roles: Mapping[str, Sequence[Role]]
    cold: Mapping[str, Sequence[Role]]
    speeches: tuple[Float32Array, ...]

    @property
    def tenants(self) -> tuple[str, ...]:
        return tuple(self.roles)

    def packages(self) -> Iterator[tuple[str, Path]]:
        """Every avatar's name and package."""
        for tenant in self.tenants:
            for role in (*self.roles[tenant], *self.cold[tenant]):
                yield role.name, role.looks[0].package

    def others(self, tenant: str) -> list[Role]:
        """What belongs to the other tenants."""
        return [role for other, roles in self.roles.items() if other != tenant for role in roles]

    def foreign(self, tenant: str) -> frozenset[bytes]:
        """Every frame that shows an avatar of another tenant."""
        looks = [look for role in self.others(tenant) for look in role.looks]
        return frozenset(frame for look in looks for frames in look.frames for frame in frames)


def make_cast(folder: Path, cold: int) -> Cast:
    """Make two avatars a tenant in ``folder``, and names of ``cold`` further ones."""
    (folder / "roles").mkdir()
    speeches = tuple(make_speech(number, _SPEECH_S) for number in range(_SPEECHES))
    roles: dict[str, list[Role]] = {}
    later: dict[str, list[Role]] = {}
    for place, tenant in enumerate(TENANTS):
        roles[tenant], later[tenant] = [], []
        for number in range(_AVATARS + 1):
            seed = 10 * place + number
            package = folder / f"{tenant}-{number}"
            look = make_look(package, speeches, frames=5 + number, seed=seed)
            windows = windows_of(package, speeches)
            if number < _AVATARS:
                link = folder / "roles" / package.name
                roles[tenant].append(Role(link, [look], windows))
                continue
            for one in range(cold):
                link = folder / "roles" / f"{tenant}-cold-{one}"
                later[tenant].append(Role(link, [look], windows))
    check_distinct([role for each in (roles, later) for some in each.values() for role in some])
    return Cast(roles, later, speeches)
