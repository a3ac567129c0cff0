"""An HTTP server in the form of OpenAI's API: ``specdec-native serve MODEL``.

Needs the extra `server`: ``pip install "specdec-native[server]"``. `app.create_app` makes an ASGI
application for servers of your own. Nothing is imported here, so that the command can say what is
missing.
"""
