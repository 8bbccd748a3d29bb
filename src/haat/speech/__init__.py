"""Speech that is answered while it is spoken, over Socket.IO as Bhashini's clients speak it.

A process of its own, behind the gateway: each answer that it gives is a call which it makes at the gateway's
door, with the speaker's key.
"""
