"""The durability of workflows: `python -m tests.crash.workflows --rounds 300`.

Executions of every kind run at once on one stack whose server is killed again and again, at named points and at random moments;
they go on through all of its lives. Now and then a life is let live until every execution has ended, and then everything is
compared: outputs, histories, effects, messages, timers, answers.
"""
