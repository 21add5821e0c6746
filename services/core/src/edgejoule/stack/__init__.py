"""The executor of the stack: Celery over Redis, with as many workers on as many hosts as there are.

The store alone says what is done. Redis holds what may be lost: messages, who works on what, and how far that is.
A *conductor* finds out what is ready and sends it; *workers* carry it out. Needs the extra ``edgejoule[stack]``.
"""
