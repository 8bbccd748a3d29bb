"""Models that are asked over gRPC: the Open Inference Protocol between HTTP, as the gateway speaks it, and gRPC.

A process of its own behind the gateway, started when the first such model is asked: what gRPC needs of memory, of
threads and of code in C is no other call's business. It meets whoever asks on a socket of this machine.
"""
