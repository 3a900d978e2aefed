"""Numbers as Prometheus reads them."""

from prometheus_client.parser import text_string_to_metric_families


class Read:
    """A text in Prometheus' format: ``read("lipwire_requests_total", code="OK")`` is the sum of the
    samples of that name with these labels."""

    def __init__(self, text: bytes) -> None:
        self.families = {
            family.name: family for family in text_string_to_metric_families(text.decode())
        }
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def has(self, name: str, **labels: str) -> bool:
        return any(
            sample.name == name and labels.items() <= sample.labels.items()
            for sample in self.samples
        )
