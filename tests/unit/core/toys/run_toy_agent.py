"""An agent that knows a toy step: the arguments are those of ``edgejoule-agent``. Valid on Python 3.6."""

import sys

from edgejoule_agent import service
from edgejoule_agent.__main__ import main

service.KINDS["on-board"] = "toy_board"
service.BACK_OFF_S = (0.1, 0.2, 0.5)
service.TROUBLE_S = 0.2
sys.exit(main())
