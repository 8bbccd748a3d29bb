"""The door that Bhashini's clients know (ULCA): a call that names services, one that computes, feedback.

`tasks` has the table of what can be asked for, `services` finds who does it, `chain` makes one native
call of one task and a pipeline of several.
"""

from haat.kernel import compiled

compiled.use("gateway/doors/ulca", __path__)
