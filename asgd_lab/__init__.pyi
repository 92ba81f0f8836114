from asgd_lab.api import compare as compare
from asgd_lab.api import explain as explain
from asgd_lab.api import replay as replay
from asgd_lab.api import report as report
from asgd_lab.api import run as run
from asgd_lab.api import sweep as sweep
from asgd_lab.backends.outcome import Progress as Progress
from asgd_lab.calibrations import Calibration as Calibration
from asgd_lab.calibrations import calibrate as calibrate
from asgd_lab.catalogue import available as available
from asgd_lab.catalogue import preset as preset
from asgd_lab.catalogue import schema as schema
from asgd_lab.comparisons import Comparison as Comparison
from asgd_lab.composed import Algorithm as Algorithm
from asgd_lab.counterfactual.explanation import Explanation as Explanation
from asgd_lab.errors import Interrupted as Interrupted
from asgd_lab.errors import RunFailed as RunFailed
from asgd_lab.errors import ScenarioError as ScenarioError
from asgd_lab.new_scenarios import new as new
from asgd_lab.replays import Replay as Replay
from asgd_lab.runs import Run as Run
from asgd_lab.scenario import Scenario as Scenario
from asgd_lab.sweeps import Sweep as Sweep
from asgd_lab.trust import trusting as trusting
from asgd_lab.validation import Validation as Validation
from asgd_lab.validation import validate as validate

__version__: str
