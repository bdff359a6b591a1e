-- What wrk sends, and its figures as one line of JSON. The call comes by the environment: a body needs no quoting there.

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = os.getenv("BENCHMARK_BODY")

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"calls": %d, "seconds": %f, "p50": %f, "p99": %f, "failed": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
