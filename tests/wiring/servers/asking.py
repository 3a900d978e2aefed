"""What is asked of such a server."""

from collections.abc import Callable

import numpy as np
from tests.support.waiting import WAIT_S

from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest

WINDOW = np.random.default_rng(3).standard_normal((32, 16, 16)).astype(np.float32).tobytes()
Serve = Callable[..., CompositingConnection]


def ask(connection: CompositingConnection, name: str, count: int = 1) -> tuple[bytes, ...]:
    request = CompositeBatchRequest(model_id=name, audio_features=WINDOW, batch_size=count)
    return connection.composite(request, WAIT_S).frames


def loaded(connection: CompositingConnection) -> set[str]:
    return {model.model_id for model in connection.models(WAIT_S) if model.loaded}
