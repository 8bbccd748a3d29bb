"""Speech that is answered while it is spoken, over Socket.IO as Bhashini's clients speak it.

Socket.IO is spoken by a process of its own. The gateway passes it the bytes of connections that ask for
``/socket.io/`` and looks at none of them; each answer that the process gives is a call which it makes at the
gateway's own door, with the speaker's key.
"""
