"""Who may do what, and how connections are encrypted. It knows neither gRPC nor HTTP."""

from lipwire.security.addresses import AllowedAddresses
from lipwire.security.audit import AuditLog
from lipwire.security.caller import Caller
from lipwire.security.control import OPEN, AccessControl, Control, Credentials, ForwardedControl
from lipwire.security.keys import PREFIX, ApiKey, KeyFile
from lipwire.security.limits import LimitRules, Standing, TenantLimits
from lipwire.security.minutes import LiveMinutes
from lipwire.security.tickets import Ticket, Tickets
from lipwire.security.ticketstores import FolderStore
from lipwire.security.tokens import ALGORITHMS, TokenRules, Tokens

__all__ = [
    "ALGORITHMS",
    "OPEN",
    "PREFIX",
    "AccessControl",
    "AllowedAddresses",
    "ApiKey",
    "AuditLog",
    "Caller",
    "Control",
    "Credentials",
    "FolderStore",
    "ForwardedControl",
    "KeyFile",
    "LimitRules",
    "LiveMinutes",
    "Standing",
    "TenantLimits",
    "Ticket",
    "Tickets",
    "TokenRules",
    "Tokens",
]
