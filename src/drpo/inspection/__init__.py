"""What a trust region does, and what is wrong with the records: from logged token log-probabilities alone.

`survey.inspect` tells the story: records stream in, in chunks of whole sequences; accumulators count; findings put the
counts into words. `result` holds the outcome as plain data, without torch, for the report and the command line.
"""
