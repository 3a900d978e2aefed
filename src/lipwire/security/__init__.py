"""Who may do what, and how connections are encrypted. It knows neither gRPC nor HTTP."""

from lipwire.security.addresses import AllowedAddresses
from lipwire.security.audit import AuditLog
from lipwire.security.control import OPEN, AccessControl, Control, Credentials, ForwardedControl
from lipwire.security.keys import PREFIX, ApiKey, KeyFile
from lipwire.security.limits import LimitRules, TenantLimits
from lipwire.security.tokens import ALGORITHMS, TokenRules, Tokens

__all__ = [
    "ALGORITHMS",
    "OPEN",
    "PREFIX",
    "AccessControl",
    "AllowedAddresses",
    "ApiKey",
    "AuditLog",
    "Control",
    "Credentials",
    "ForwardedControl",
    "KeyFile",
    "LimitRules",
    "TenantLimits",
    "TokenRules",
    "Tokens",
]
