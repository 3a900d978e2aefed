"""The network of one avatar in inference servers, for a process that has the avatar's frames."""

from lipwire.avatars import Avatar
from lipwire.domain import AudioWindows, Call, Visual
from lipwire.serving import Backend, DrawnFloatMouths, DrawnMouths, MakeCrops


class RemoteNetwork:
    """Makes the mouths of one avatar, the pictures that its network draws, by asking a backend
    (inference servers); the avatar's frames are in this process.

    The backend is asked for mouths of these frames' revision (hash of the files). Where a server
    has other frames, or none, it is sent the crops of these, the pictures that the network is
    shown.
    """

    def __init__(self, backend: Backend, model_id: str, frames: Avatar) -> None:
        """``backend`` is asked for mouths of avatar ``model_id``; ``frames`` are the avatar's. Both
        are closed by whoever opened them."""
        self._backend = backend
        self._model_id = model_id
        self._frames = frames

    def mouths(
        self,
        first: int,
        windows: AudioWindows,
        *,
        crops: MakeCrops | None = None,
        call: Call | None = None,
    ) -> DrawnMouths:
        """Return mouths for frames ``first``, ``first + 1`` and so on, one for each of ``windows``,
        what the network hears of a frame, (N, 32, 16, 16) float32; mouths are (N, 320, 320, 3)
        uint8, in the colour order of the avatar's package (bgr or rgb). Waits for the answer.

        ``crops()`` returns what the network is shown, (N, 320, 320, 3) uint8 in the same colour
        order, and is called only where the server needs it; None for the crops of the avatar's own
        frames. ``call`` is the request that this is done for (None: none in particular). Raises
        AvatarChanged where the server's network is of another revision than the frames here,
        NotFound, InvalidInput, AvatarInvalid, and what the backend raises where it cannot be
        reached in time (Unavailable, Overloaded, DeadlineExceeded, Cancelled).
        """
        frames = self._frames
        return self._backend.mouths(
            self._model_id,
            first,
            windows,
            revision=frames.revision,
            crops=crops or (lambda: frames.crops(first, len(windows))),
            call=call,
        )

    def mouths_of(
        self, visual: Visual, windows: AudioWindows, *, call: Call | None = None
    ) -> DrawnFloatMouths:
        """Return the network's own output, (N, 3, 320, 320) float32, by custom in [0, 1], for
        pictures that the caller gives. ``visual`` is (N, 6, 320, 320) float32 in [0, 1]: channels 0
        to 2 are the crop, 3 to 5 the crop with the mouth black (rows 5 to 309 of columns 5 to 314).
        ``windows`` are (N, 32, 16, 16) float32. Colours are in the order of the avatar's package
        (bgr or rgb). ``call`` is the request that this is done for (None: none in particular).

        Raises AvatarChanged where the server's network is of another revision than the frames here,
        NotFound where the server has no such avatar, InvalidInput where an array has another shape,
        number of frames or values that are not finite, and AvatarInvalid where the network cannot
        be loaded or fails; and where no server answers in time Unavailable, Overloaded,
        DeadlineExceeded, or Cancelled where ``call`` ends first."""
        return self._backend.mouths_of(
            self._model_id, visual, windows, revision=self._frames.revision, call=call
        )
