"""The state machine that the children of a map run are executions of: the item processor under `MACHINE/LABEL`.

It is a row like any other machine's, so that histories, definitions and logs of children are found as those of all executions;
no operation lists or changes it.
"""

from entrepot.arns import Account
from entrepot.database import Transaction
from entrepot.services.stepfunctions import machines
from entrepot.services.stepfunctions.language.distributed import Distribution
from entrepot.services.stepfunctions.machines import Logging, Machine


def child_machine(tx: Transaction, account: Account, parent: Machine, distribution: Distribution) -> Machine:
    """Return the machine of a map state's children as it is now in its parent's definition."""
    name = f"{parent.name}/{distribution.label}"
    type_ = "EXPRESS" if distribution.express else "STANDARD"
    logging = Logging(parent.logging.level, parent.logging.include_execution_data, parent.log_group_name)
    found = machines.find(tx, account, name)
    if found is not None and found.type != type_:
        machines.delete(tx, found)
        found = None
    if found is None:
        machines.insert(tx, name, distribution.definition, parent.role_arn, type_, logging)
    elif (found.definition, found.role_arn, found.logging) != (distribution.definition, parent.role_arn, logging):
        machines.update(tx, found, definition=distribution.definition, role_arn=parent.role_arn, logging=logging)
    made = machines.find(tx, account, name)
    assert made is not None
    return made
