"""Errors as ONNX Runtime words them, from its issue tracker."""

import pytest

from lipwire.engine.losses import why_lost

RAN = "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Conv node. "


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=a ; "
            "file=/onnxruntime/core/providers/cuda/gpu_data_transfer.cc ; line=63 ; expr=x();",
            "CUDA failure 700: an illegal memory access was encountered",
        ),
        (
            RAN + "Name:'Conv_1' Status Message: CUDA failure 719: unspecified launch failure ; "
            "GPU=1 ; hostname=a ; expr=cudaGetLastError();",
            "CUDA failure 719: unspecified launch failure",
        ),
        ("CUDA failure 999: unknown error ; GPU=19 ; expr=y;", "CUDA failure 999: unknown error"),
        (
            "CUDA failure 1: invalid argument ; GPU=1 ; expr=a; \nCUDA failure 700: an illegal"
            " memory access was encountered ; GPU=1",
            "CUDA failure 700: an illegal memory access was encountered",
        ),
        (
            RAN + "Status Message: CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED ; GPU=0",
            "CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED",
        ),
        (
            "CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED ; GPU=0 ; hostname=a",
            "CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED",
        ),
    ],
)
def test_what_ends_a_gpus_use_is_known(text: str, why: str) -> None:
    assert why_lost(RuntimeError(text)) == why


@pytest.mark.parametrize(
    "text",
    [
        "CUDA failure 2: out of memory ; GPU=0 ; hostname=a ; expr=cudaMalloc(&p, size);",
        "CUDA failure 1: invalid argument ; GPU=1 ; hostname=a ; expr=cudaMemcpyAsync(a);",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=a",
        "CUDNN failure 3: CUDNN_STATUS_BAD_PARAM ; GPU=0 ; hostname=a",
        RAN + "Name:'Conv_1' Status Message: Invalid input shape: {0,3}",
        "CUDA failure 7000: not yet invented",
        "",
    ],
)
def test_other_errors_are_no_loss(text: str) -> None:
    assert why_lost(RuntimeError(text)) is None
