"""What each batch took, in the log: the configuration's ``log_compositing_times``."""

import logging
from typing import Final

import grpc

from lipwire.rpc.compositing import CompositingServicer
from lipwire.rpc.generated import compositing_pb2 as pb

_logger: Final = logging.getLogger("lipwire.rpc.times")


class LoggingCompositingServicer(CompositingServicer):
    """Answers as its base does, and says where the time went."""

    def InferBatchComposite(  # noqa: N802
        self, request: pb.CompositeBatchRequest, context: grpc.ServicerContext
    ) -> pb.CompositeBatchResponse:
        """One line a batch: inference, compositing, in all; what was refused is a warning."""
        answer = super().InferBatchComposite(request, context)
        if not answer.success:
            _logger.warning(
                "%.64s: refused with %s: %s",
                request.model_id,
                answer.error_code,
                answer.error,
                extra={"model": request.model_id[:64], "error_code": answer.error_code},
            )
            return answer
        count = len(answer.composited_frames)
        figures = {
            "model": request.model_id,
            "frames": count,
            "gpu_id": answer.gpu_id,
            "inference_ms": round(answer.inference_time_ms, 2),
            "composite_ms": round(answer.composite_time_ms, 2),
            "audio_ms": round(answer.audio_time_ms, 2),
            "total_ms": round(answer.total_time_ms, 2),
        }
        _logger.info(
            "%s: %d frames in %.1f ms (inference %.1f, compositing %.1f, per frame %.2f)",
            request.model_id,
            count,
            answer.total_time_ms,
            answer.inference_time_ms,
            answer.composite_time_ms,
            answer.total_time_ms / count,
            extra=figures,
        )
        return answer
