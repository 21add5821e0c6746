"""What the agent shows to Prometheus: the board's power, heat and load, and the latency of what it measures.

``exposition``  readings as text, by hand; which there may be, ``edgejoule_agent.metrics`` says
``meter``       energy from readings of power, and what is stuck; pure
``board``       the sensors of one board, read again and again
``cells``       what trials wrote down of themselves (see ``edgejoule_agent.live``), and the job at hand
``server``      a port of its own, and the threads that read

Sensors are read by two threads of the exporter, never by a scrape: a slow or hanging sensor delays nobody, and energy
does not depend on how often somebody asks. The text is made without prometheus_client, since a board should have few
packages: what we need of it is one page, and its parser is the judge in our tests.
"""
