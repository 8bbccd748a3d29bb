-- wrk -s call.lua URL -- BODY_FILE KEYS_FILE NAME VALUE NAME VALUE ...
-- Posts the body with these headers. KEYS_FILE is `-`, or has one API key a line: they are used in turn.
local keys_file

function init(arguments)
    wrk.method = "POST"
    local file = assert(io.open(arguments[1], "rb"))
    wrk.body = file:read("*a")
    file:close()
    for index = 3, #arguments, 2 do
        wrk.headers[arguments[index]] = arguments[index + 1]
    end
    if arguments[2] == "-" then
        return
    end
    local requests = {}
    for key in io.lines(arguments[2]) do
        wrk.headers["Authorization"] = "Bearer " .. key
        requests[#requests + 1] = wrk.format()
    end
    local number = 0
    request = function()
        number = number % #requests + 1
        return requests[number]
    end
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        'result {"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p95_ms": %.3f, "p99_ms": %.3f, "errors": %d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(95) / 1e3,
        latency:percentile(99) / 1e3, errors.connect + errors.read + errors.write + errors.status + errors.timeout
    ))
end
