"""Front doors: paths at which the gateway speaks protocols that clients already know.

A request that comes in at a door is made the native call it stands for before it is admitted, and its
answer gets the door's shape as the last thing before it leaves. Between the two there is nothing of a door: the
same grant, limits, steps, record and charge as for a call of ``/v1/services/…``.
"""

from haat.kernel import compiled

compiled.use("gateway/doors", __path__)
