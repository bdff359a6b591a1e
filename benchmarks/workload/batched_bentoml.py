"""The same as a service of BentoML. Runs in BentoML's own environment, not in ours."""

import bentoml  # type: ignore[import-not-found]
from batched import squares  # type: ignore[import-not-found]  # both lie in one folder of PYTHONPATH


@bentoml.service(workers=1, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Squares:
    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=1000)  # type: ignore[untyped-decorator]
    def predict(self, numbers: list[int]) -> list[int]:
        found: list[int] = squares(numbers)
        return found
