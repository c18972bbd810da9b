"""The step map, the observed step, and one run of it."""

from gdkit.descent.first_step import GRADIENT_REMEDY as GRADIENT_REMEDY
from gdkit.descent.first_step import LOSS_REMEDY as LOSS_REMEDY
from gdkit.descent.first_step import check_first_step as check_first_step
from gdkit.descent.first_step import find_bad_start as find_bad_start
from gdkit.descent.first_step import is_used as is_used
from gdkit.descent.observed import Lane as Lane
from gdkit.descent.observed import StepInputs as StepInputs
from gdkit.descent.observed import check_observers as check_observers
from gdkit.descent.observed import observe as observe
from gdkit.descent.observed import observed_step as observed_step
from gdkit.descent.observed import roll_windows as roll_windows
from gdkit.descent.observed import start_lane as start_lane
from gdkit.descent.run import Trajectory as Trajectory
from gdkit.descent.run import descend as descend
from gdkit.descent.start import initial_state as initial_state
from gdkit.descent.start import raw_initial_state as raw_initial_state
from gdkit.descent.start import split_key as split_key
from gdkit.descent.start import withholds_updates as withholds_updates
from gdkit.descent.step import Step as Step
from gdkit.descent.step import batch_step as batch_step
from gdkit.descent.step import lane_step as lane_step
from gdkit.descent.step import step_map as step_map
from gdkit.descent.step import strip_weak_types as strip_weak_types
