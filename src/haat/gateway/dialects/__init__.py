"""What providers speak that programs know already: read here for what a call asks for and what it has used.

Requests and answers pass as they are. What is read are the fields by which such calls are metered.
"""
