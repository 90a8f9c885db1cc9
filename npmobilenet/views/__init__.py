"""What people look at: pages and pictures of models. Computes nothing of its own; the engine's numbers are shown.

explorer.py gathers what the page of `npmobilenet explore` shows, explore_page.py writes it as one file,
explore_server.py answers a browser on this machine. The page itself, HTML, CSS and JavaScript, lies in page/.
"""
