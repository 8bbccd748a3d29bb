"""WebSocket sessions: how the gateway admits and passes them on, and the process that speaks the protocol."""
