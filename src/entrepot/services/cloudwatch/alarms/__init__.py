"""Alarms: what they are, how their state follows from values or from other alarms, and what a change of state sets off.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/AlarmThatSendsEmail.html
"""
