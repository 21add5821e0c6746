"""A board that is not there: its files, kept alive by a model of its power, heat and clocks, for people without one.

``declared``  what each simulated board is, every number with its source
``roofline``  how long an inference takes
``physics``   power of the rails, temperatures, the steps of the sensors
``governor``  clocks, throttling, over-current
``machine``   all of it together, from one moment to the next; pure
``files``     the machine's state in the files of the board's tree
``running``   the process that owns a tree, and how inferences tell it what they do
``device``    the board as a device: what it says of itself, and what is refused
``build``     an engine of it, which ONNX Runtime computes
``work``      inferences one after the other, as long as the board would take
``trial``     one trial of such an engine
``trees``     the files of the boards, as they are at rest

Nothing here is a measurement, and everything that comes of it says ``simulated``.
"""
