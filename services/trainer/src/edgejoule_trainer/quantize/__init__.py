"""Our quantizer: from a traced float network to one that computes as its INT8 engine will.

``fold`` absorbs batch norm, ``placement`` decides where quantizers stand and share a scale, ``calibrate`` and
``scales`` choose the scales, ``rounding`` the weights' steps, ``fake`` puts them in, ``ptq`` does all of it and picks
the calibrator, ``lint`` checks the exported graph. ``errors`` measures every layer of what came out,
``sensitivity`` asks what 8 bits do to one layer at a time.
"""
