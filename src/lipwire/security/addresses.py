"""Addresses that requests may come from."""

import ipaddress
from collections.abc import Sequence
from typing import Final

from lipwire.domain import InvalidInput

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class AllowedAddresses:
    """The IP addresses and networks from which requests may come; an empty list allows all."""

    def __init__(self, texts: Sequence[str]) -> None:
        """``texts`` are addresses and networks, such as ``10.0.0.0/8``, ``192.0.2.7``,
        ``2001:db8::/32``. Raises InvalidInput where one of them is neither."""
        self._networks: Final = tuple(_network(text) for text in texts)

    @property
    def limited(self) -> bool:
        """Whether only certain addresses are allowed; False where the list is empty."""
        return bool(self._networks)

    def allow(self, address: str) -> bool:
        """Return whether a request from ``address`` may be answered. ``address`` is an IPv4 or IPv6
        address as text, without a port. Every address is allowed where the list is empty. The
        address of a Unix socket is the empty text, which is always allowed, because files have
        permissions of their own. Where there is a list, text that is no address is not allowed."""
        if not self._networks or not address:
            return True
        try:
            found = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        return any(found in network for network in self._networks)


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise InvalidInput(
            f"security.allow_from has {text[:60]!r}; allowed are addresses and networks, as"
            " 10.0.0.0/8"
        ) from None
