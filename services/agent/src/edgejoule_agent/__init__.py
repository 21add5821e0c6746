"""What runs on a device: engines, pre- and post-processing, the measuring protocol.

Imports nothing else of Edgejoule and stays valid on Python 3.6 with numpy 1.19 (JetPack 4).
"""
