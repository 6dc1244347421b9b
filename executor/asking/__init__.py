"""What is asked before a call is made, and who answers.

`inquiry` knows what has to be clear before a call, `questions` waits for it, `answering` takes answers
from elsewhere, days later too. Imports `journal`, `state` and `calls`.
"""
