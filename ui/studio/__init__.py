"""The design studio: a table in the browser where the team can be watched and steered.

    desk     who designs what: a queue, a worker, one folder a design; knows no web
    sitting  one design at the desk, from the concept to the last picture
    story    what has happened in it, folded from its events
    table    the same as HTML, in parts that are sent only when they changed
    beside   two of them side by side
    api      what programs may ask, over HTTP and MCP
    pages    one Gradio page a file, each with `build(desk)`
    rooms    how the batch, merge and judge pages ask what they show; each has a room behind it
    front    the door: address, password, cookie; answers while everything else still loads

Importing this loads nothing; Gradio is touched in here and nowhere else.
"""
