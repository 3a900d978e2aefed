import pytest

from lipwire.config.values import bind_host, join_address, split_listen_address, split_targets


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (":50051", (None, 50051)),
        ("50051", (None, 50051)),
        (" :0 ", (None, 0)),
        ("127.0.0.1:50051", ("127.0.0.1", 50051)),
        ("[::1]:50051", ("[::1]", 50051)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_ports_as_people_write_them(text: str, found: tuple[str | None, int]) -> None:
    assert split_listen_address(text) == found


@pytest.mark.parametrize(
    "text", ["", ":", "x", ":65536", "a:b:1", "-1", ":-1", "1.5", ":123456", "a b:1", "٥٠:1", "::1"]
)
def test_what_is_no_port(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        split_listen_address(text)


def test_hosts_are_names_or_addresses() -> None:
    assert bind_host("0.0.0.0") == "0.0.0.0"
    assert bind_host("[::]") == "::"
    assert bind_host("fe80::1%eth0") == "fe80::1%eth0"
    for text in ("", "a b", "a/b", "-x", "a\n", "http://a"):
        with pytest.raises(ValueError, match="no host"):
            bind_host(text)
    assert join_address("::", 1) == "[::]:1"
    assert join_address("localhost", 1) == "localhost:1"


@pytest.mark.parametrize(
    ("value", "targets"),
    [
        ("localhost:50051", ("localhost:50051",)),
        ("a:1, b:2,c:3", ("a:1", "b:2", "c:3")),
        (["a:1", "b:2"], ("a:1", "b:2")),
        (("a:1, b:2", "c:3"), ("a:1", "b:2", "c:3")),
        ("[::1]:50051", ("[::1]:50051",)),
        ("dns:///load-balancer.internal:50051", ("dns:///load-balancer.internal:50051",)),
        ("inference_server:1", ("inference_server:1",)),
    ],
)
def test_one_address_or_several(value: object, targets: tuple[str, ...]) -> None:
    assert split_targets(value) == targets


@pytest.mark.parametrize(
    "value",
    ["", [], ",", "a", "a:", ":1", "a:0", "a:65536", "http://a:1", "a:1,", "a:1,a:1", "a:1/x",
     5, None, [5], [["a:1"]], ["a:1", "a:1"], [f"a:{n}" for n in range(1, 1002)]],
)  # fmt: skip
def test_what_is_no_address(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        split_targets(value)
