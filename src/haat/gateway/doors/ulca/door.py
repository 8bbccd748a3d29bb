"""The addresses that ULCA's clients know."""

from __future__ import annotations

from haat.gateway.doors.ulca.compute import Compute
from haat.gateway.doors.ulca.configs import ModelsPipeline
from haat.gateway.doors.ulca.feedback import Feedback
from haat.gateway.doors.ulca.single import SINGLES

OPERATIONS = {
    (b"POST", b"/ulca/apis/v0/model/getModelsPipeline"): ModelsPipeline(),
    (b"POST", b"/services/inference/pipeline"): Compute(),
    (b"POST", b"/services/feedback/submit"): Feedback(),
    **{(b"POST", b"/services/inference/" + name.encode("ascii")): door for name, door in SINGLES.items()},
}
