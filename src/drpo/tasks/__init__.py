"""Problems and their grading: tasks by name, a held-out side that never trains, a grader that cannot hang."""

from drpo.tasks.base import Example, Task
from drpo.tasks.grading.grader import Grade, Grader
from drpo.tasks.kinds.reasoning_gym import dataset_names
from drpo.tasks.registry import FORMS, TASKS, make_task

__all__ = ["FORMS", "TASKS", "Example", "Grade", "Grader", "Task", "dataset_names", "make_task"]
