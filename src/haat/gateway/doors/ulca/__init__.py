"""The door that Bhashini's clients know (ULCA): a call that names services, one that computes, feedback.

`tasks` has the table of what can be asked for, `services` finds who does it, `chain` makes one native
call of one task and a pipeline of several.
"""

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
