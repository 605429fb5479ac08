// The points, by the command that passes them. Compiled into the test that dies at each of them as well.

macro_rules! points {
    ($($point:ident),* $(,)?) => {
        /// Between which steps to die.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(crate) enum Point {
            $($point),*
        }

        #[cfg(feature = "fault-points")]
        impl Point {
            #[allow(dead_code, reason = "for the test")]
            pub(crate) const ALL: &[Self] = &[$(Self::$point),*];
        }
    };
}

points! {
    // create and run, in the runtime
    CreateFolder, CreateConfig, CreateStateEmpty, CreateState, CreateOneCgroup, CreateCgroups,
    CreateMountRecorded, CreateMount, CreateGate, CreateForked, CreateMaps, CreateInitEmpty, CreateInit,
    CreateHooks, CreateReady, CreatePidFileDraft, CreatePassedOn,
    // in the new process
    InitBorn, InitInCgroup, InitInNamespaces, InitMounted, InitHooks, InitInRoot, InitLast,
    // in the process that enters namespaces before it
    BetweenEntered, BetweenForked,
    // run
    RunReleased, RunEnded,
    // start
    StartKnocked, StartOpened, StartGateRemoved, StartHooks,
    // exec, in the runtime and in the new process
    ExecForked, ExecReady, ExecPassedOn, ExecReleased, JoinBorn, JoinInCgroup, JoinInNamespaces, JoinLast,
    // delete, and run at its end
    DeleteKilled, DeleteEnded, DeleteAllKilled, DeleteOneCgroup, DeleteCgroups, DeleteUnmounted,
    DeleteHooks, DeleteState,
    // update
    UpdateOne,
}
