"""GET /metrics as vLLM writes it: Prometheus' text, every sample with the model's served name."""

from fake_engine import Engine

BROKEN = """\
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{model_name="x" 3
<html>
vllm:num_requests_waiting one
# TYPE
vllm:num_requests_waiting{model="theirs",model_name="a\\"model=\\"}"} 7
no_type_at_all 1.5
"""


def page(model: str, engine: Engine, *, broken: bool) -> str:
    """`engine` is vLLM's own label: the number of the engine behind the API server."""
    if broken:
        return BROKEN
    labels = f'engine="0",model_name="{model}"'
    done = engine.counts["completed"]
    return f"""\
# HELP process_resident_memory_bytes Resident memory size in bytes.
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 1.2345678e+08
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{{labels}}} {engine.running}.0
# HELP vllm:request_success_total Count of successfully processed requests.
# TYPE vllm:request_success_total counter
vllm:request_success_total{{{labels},finished_reason="stop"}} {done}.0
# HELP vllm:request_success_created Count of successfully processed requests.
# TYPE vllm:request_success_created gauge
vllm:request_success_created{{{labels},finished_reason="stop"}} 1.7e+09
# HELP vllm:time_to_first_token_seconds Histogram of time to first token in seconds.
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{{{labels},le="0.001"}} 0.0
vllm:time_to_first_token_seconds_bucket{{{labels},le="+Inf"}} {done}.0
vllm:time_to_first_token_seconds_count{{{labels}}} {done}.0
vllm:time_to_first_token_seconds_sum{{{labels}}} 0.5
"""
